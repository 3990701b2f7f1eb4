"""Denoiser: a convolutional autoencoder that removes noise from grey images of any size.

Data: Fashion-MNIST and MNIST of keras.datasets (60,000 + 10,000 images each) from Keras's cache
(KERAS_HOME moves it), downloaded if missing. Or --data: a folder with mnist.npz and optionally
Fashion-MNIST's four files. Gaussian noise of sigma 0.05 to 0.5 of full scale and salt-and-pepper
noise are added during training.
About an hour on 2 CPU cores. Expect 6 dB above non-local means at sigma 0.3.
"""

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from PIL import Image

from service.artifacts.manifest import Manifest
from service.pixels.preprocess import Floats, Pixels, preprocess, to_pixels
from service.pixels.spec import Input, KeepSize, Tiling
from service.pixels.tiles import predict_tiled
from training.card import Card
from training.data import keras_cache, prepare, reading, require, sha256_of
from training.evaluation import as_posted, mean_psnr, mean_ssim, non_local_means
from training.export import CALIBRATION_IMAGES, Trained, export
from training.fit import fit, seed_everything
from training.options import Options
from training.plots import plot_before_after, plot_curves
from training.recipes import fashion_mnist
from training.samples import digit, hand, trousers, with_noise
from training.tasks import Denoising

# --- Config
INPUT = Input(shape=(None, None, 1), color="grey", resize=KeepSize())
# Two poolings; the receptive field reaches 32 pixels to each side.
TILING = Tiling(multiple=4, tile=512, halo=32)
CHANNELS = (16, 32, 96)
EPOCHS = 16
PATIENCE = 6
BATCH_SIZE = 64
LEARNING_RATE = 2e-3
VALIDATION_COUNT = 1_000  # of each data set
TEST_COUNT = 1_000  # of each data set, because non-local means is slow
MIN_SIGMA, MAX_SIGMA = 0.05, 0.5
SALT_AND_PEPPER_SHARE, MAX_SALT_AND_PEPPER = 0.2, 0.2
NEGATIVE_SHARE = 0.25  # dark on light, as on paper
SIGMAS = (0.1, 0.3, 0.5)
SAMPLE_SIGMA = 0.3


def run(options: Options) -> Path:
    """Data, network, train, evaluate, export; returns the artifact's folder."""
    seed_everything(options.seed)
    mnist, fashion = locate_mnist(options.data), locate_fashion(options.data)
    count = 300 if options.smoke else None
    sets = {"fashion_mnist": read_fashion(fashion), "mnist": read_mnist(mnist)}
    clean = [prepare(train[:count], INPUT) for train, _ in sets.values()]
    held = VALIDATION_COUNT if not options.smoke else 50
    training = np.concatenate([images[held:] for images in clean])
    validation = np.concatenate([images[:held] for images in clean])
    print(f"{len(training)} training and {len(validation)} validation images")

    network = build()
    epochs = options.epochs or (2 if options.smoke else EPOCHS)
    noisy_validation = add_noise(validation, np.random.default_rng(options.seed))
    history = train(network, training, (noisy_validation, validation), epochs, options)

    metrics: dict[str, float] = {}
    for name, (_, test) in sets.items():
        clean_test = prepare(test[: 20 if options.smoke else TEST_COUNT], INPUT)
        metrics |= evaluate(network, clean_test, name, options.seed)
        metrics[f"test_count/{name}"] = float(len(clean_test))
    metrics |= overall(metrics)

    some = training[:: max(1, len(training) // CALIBRATION_IMAGES)]  # of both sets

    def draw_figures(target: Path) -> None:
        plot_curves(history, "val_loss", target / "curves.png")
        before_after(network, target / "before-after.png")

    return export(
        Trained(
            name="denoiser",
            task=Denoising(TILING),
            latency_objective_s=None,
            input=INPUT,
            network=network,
            validation=noisy_validation,
            validation_truth=validation,
            calibration=add_noise(some, np.random.default_rng(options.seed)),
            metrics=metrics,
            sample=sample(),
            dataset="Fashion-MNIST (MIT, Zalando SE) and MNIST (LeCun, Cortes, Burges)",
            dataset_sha256=sha256_of([*(fashion / file for file in fashion_mnist.FILES), mnist]),
            seconds=sum(history["seconds"]),
            card=CARD,
            draw_figures=draw_figures,
        ),
        options,
    )


# --- Data
def locate_mnist(data: Path | None) -> Path:
    """The file `mnist.npz` in `data`, or in Keras's cache, where Keras downloads it."""
    path = data / "mnist.npz" if data is not None else keras_cache("mnist.npz")
    if data is None and not path.is_file():
        try:
            keras.datasets.mnist.load_data()
        except Exception as error:
            print(f"Keras could not download MNIST ({error})")
    return require(path, "It is Keras's mnist.npz: put it there, or pass its folder with --data.")


def locate_fashion(data: Path | None) -> Path:
    """The folder of Fashion-MNIST's files: `data` if it has them, else Keras's cache."""
    in_data = data is not None and (data / fashion_mnist.FILES[0]).is_file()
    return fashion_mnist.locate(data if in_data else None)


def read_mnist(path: Path) -> tuple[Pixels, Pixels]:
    """Training and test images, (n, 28, 28)."""
    with reading(path), np.load(path) as arrays:
        return arrays["x_train"], arrays["x_test"]


def read_fashion(folder: Path) -> tuple[Pixels, Pixels]:
    """Training and test images, (n, 28, 28)."""
    train, test = (fashion_mnist.read_split(folder, split)[0] for split in ("train", "t10k"))
    return train, test


def add_noise(images: Floats, random: np.random.Generator) -> Floats:
    """Add Gaussian noise of random strength to each image, and salt-and-pepper to some."""
    n = len(images)
    sigma = random.uniform(MIN_SIGMA, MAX_SIGMA, (n, 1, 1, 1)).astype(np.float32)
    noisy = images + sigma * random.standard_normal(images.shape, dtype=np.float32)
    share = random.uniform(0, MAX_SALT_AND_PEPPER, (n, 1, 1, 1))
    share *= random.random((n, 1, 1, 1)) < SALT_AND_PEPPER_SHARE
    draw = random.random(images.shape, dtype=np.float32)
    noisy = np.where(draw < share / 2, 0, np.where(draw > 1 - share / 2, 1, noisy))
    return as_posted(noisy)


class NoisyBatches(keras.utils.PyDataset):
    """Batches of (noisy, clean) images, with new noise every epoch."""

    def __init__(self, images: Floats, seed: int) -> None:
        super().__init__()
        self._images, self._seed, self._epoch = images, seed, 0
        self._order = np.random.default_rng(seed).permutation(len(images))

    def __len__(self) -> int:
        return math.ceil(len(self._images) / BATCH_SIZE)

    def __getitem__(self, index: int) -> tuple[Floats, Floats]:
        random = np.random.default_rng([self._seed, self._epoch, index])
        clean = self._images[self._order[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]]
        flip = random.random((len(clean), 1, 1, 1)) < NEGATIVE_SHARE
        clean = np.where(flip, 1 - clean, clean)
        return add_noise(clean, random), clean

    def on_epoch_end(self) -> None:
        """Reshuffle and draw new noise."""
        self._epoch += 1
        self._order = np.random.default_rng([self._seed, self._epoch]).permutation(
            len(self._images)
        )


# --- Network
def build() -> keras.Model:
    """Build a U-Net: down to a quarter of the size and up again, with skip connections.

    Without the skips the latent space limits the quality at low noise. Sub-pixel convolutions (Shi
    et al. 2016, arXiv:1609.05158) restore the size: they need no fixed shape and run in XNNPACK.
    """
    fine, middle, coarse = CHANNELS

    def convolution(x: Any, channels: int) -> Any:
        return layers.Conv2D(channels, 3, padding="same", activation="relu")(x)

    def enlarge(x: Any, channels: int) -> Any:
        return keras.ops.nn.depth_to_space(layers.Conv2D(4 * channels, 1)(x), 2)

    inputs = keras.Input((None, None, 1))
    at_full = convolution(inputs, fine)
    at_half = convolution(convolution(layers.MaxPooling2D()(at_full), middle), middle)
    latent = convolution(convolution(layers.MaxPooling2D()(at_half), coarse), coarse)
    x = layers.Concatenate()([enlarge(latent, middle), at_half])
    x = convolution(convolution(x, middle), middle)
    x = convolution(layers.Concatenate()([enlarge(x, fine), at_full]), fine)
    return keras.Model(inputs, layers.Conv2D(1, 3, padding="same")(x), name="denoiser")


# --- Train
def train(
    network: keras.Model,
    images: Floats,
    validation: tuple[Floats, Floats],
    epochs: int,
    options: Options,
) -> dict[str, list[float]]:
    """Minimise the mean squared error, which PSNR measures; the learning rate falls to 0."""
    batches = NoisyBatches(images, options.seed)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, epochs * len(batches))
    # A second model around the same layers keeps the optimizer's state out of the saved network.
    model = keras.Model(network.inputs, network.outputs)
    model.compile(keras.optimizers.Adam(schedule), loss="mse", metrics=[psnr_metric])
    return fit(
        model,
        batches,
        validation,
        checkpoints=options.checkpoints,
        epochs=epochs,
        patience=PATIENCE,
        monitor="val_loss",
    )


def psnr_metric(truth: Any, predicted: Any) -> Any:
    """Peak signal-to-noise ratio in dB of each image, for full scale 1."""
    error = keras.ops.mean(keras.ops.square(truth - keras.ops.clip(predicted, 0, 1)), (1, 2, 3))
    return -10 * keras.ops.log10(keras.ops.maximum(error, 1e-10))


# --- Evaluate
def evaluate(network: keras.Model, clean: Floats, name: str, seed: int) -> dict[str, float]:
    """PSNR and SSIM by sigma: of the noisy images, the output and non-local means."""
    metrics: dict[str, float] = {}
    for sigma in SIGMAS:
        random = np.random.default_rng([seed, round(sigma * 10)])
        noise = sigma * random.standard_normal(clean.shape, dtype=np.float32)
        noisy = as_posted(clean + noise)
        output = as_posted(network.predict(noisy, batch_size=100, verbose=0))
        results = {"noisy": noisy, "denoised": output, "nlm": non_local_means(noisy, clean, sigma)}
        for kind, images in results.items():
            metrics[f"psnr_db/{name} sigma {sigma} {kind}"] = mean_psnr(clean, images)
            metrics[f"ssim/{name} sigma {sigma} {kind}"] = mean_ssim(clean, images)
    return metrics


def overall(metrics: dict[str, float]) -> dict[str, float]:
    """The PSNR of the output by sigma, averaged over both data sets."""
    means: dict[str, float] = {}
    for sigma in SIGMAS:
        keys = [f"psnr_db/{name} sigma {sigma} denoised" for name in ("fashion_mnist", "mnist")]
        means[f"psnr_db_sigma_{sigma}"] = float(np.mean([metrics[key] for key in keys]))
    return means


def sample() -> Image.Image:
    """A noisy digit from a font."""
    return with_noise(digit("7"), SAMPLE_SIGMA, seed=7)


def before_after(network: keras.Model, path: Path) -> None:
    """Write a sheet of drawn images: clean, noisy, denoised."""
    drawn = {
        "digit, 28x28": (digit("4"), 0.3),
        "trousers, 28x28": (trousers(), 0.3),
        "word, 112x40": (digit("vitrine", (112, 40)).resize((112, 40)), 0.2),
        "hand, 64x64": (hand(2, side=64).convert("L"), 0.1),
    }
    rows = []
    for caption, (clean, sigma) in drawn.items():
        noisy = with_noise(clean, sigma, seed=1)
        rows.append((f"{caption}\nsigma {sigma}", [clean, noisy, denoised(network, noisy)]))
    plot_before_after(rows, ["clean", "noisy", "denoised"], path)


def denoised(network: keras.Model, image: Image.Image) -> Image.Image:
    """Denoise one grey image at its own size."""

    def predict(planes: Floats) -> Floats:
        return np.asarray(network.predict_on_batch(planes))

    planes = predict_tiled(preprocess(image, INPUT)[np.newaxis], predict, TILING)
    return Image.fromarray(to_pixels(planes)[0, :, :, 0])


# --- Export
def results(manifest: Manifest) -> str:
    """PSNR and SSIM by data set and sigma."""
    metrics = manifest.metrics
    lines = [
        "On test images, with Gaussian noise, clipped and stored in 8 bits as a posted image is. "
        "PSNR in dB / SSIM; non-local means is scikit-image's, its strength tuned on these very "
        "images.",
        "",
        "| data | images | sigma | noisy | denoised | non-local means | gain over it |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("fashion_mnist", "mnist"):
        for sigma in SIGMAS:
            key = f"{name} sigma {sigma}"
            psnr, ssim = (
                [metrics[f"{measure}/{key} {kind}"] for kind in ("noisy", "denoised", "nlm")]
                for measure in ("psnr_db", "ssim")
            )
            cells = " | ".join(f"{p:.2f} / {s:.3f}" for p, s in zip(psnr, ssim, strict=True))
            count = round(metrics[f"test_count/{name}"])
            lines.append(
                f"| {name} | {count:,} | {sigma} | {cells} | {psnr[1] - psnr[2]:+.2f} dB |"
            )
    return "\n".join(lines)


CARD = Card(
    title="Denoiser",
    purpose=(
        "Takes Gaussian and salt-and-pepper noise out of small grey pictures: digits, garments, "
        "drawings. Fully convolutional: an image of any size from 8x8 is denoised at its own "
        "size, a large one in overlapping tiles. Of a colour image it sees the brightness at full "
        "size and red, green and blue at a quarter of each side."
    ),
    not_for=(
        "Photographs whose detail matters, medical or legal pictures: what it paints is what it "
        "learned from digits and clothes, not what was there. JPEG blocks, blur and stripes are "
        "not the noise that it knows."
    ),
    data=(
        "Fashion-MNIST (MIT, Zalando SE) and MNIST (LeCun, Cortes, Burges), the official splits; "
        "the first training images of each were held out for validation. Noise of sigma 0.05 to "
        "0.5 of full scale, salt-and-pepper on a fifth of the images, a quarter of them in "
        "negative."
    ),
    limits=(
        "Trained at 28x28 alone: strokes are expected a few pixels wide, and fine texture is "
        "smoothed away. On images without noise it still smooths."
    ),
    results=results,
)
