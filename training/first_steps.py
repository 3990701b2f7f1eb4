"""First steps: train a small network on Fashion-MNIST, and look at what it learned.

Run `python training/first_steps.py`, then read it from the top down: `main`, at the end, takes the
steps in turn. It needs keras, numpy and matplotlib only. On two CPU cores it takes a few minutes,
with `--images 5000` less than one. The pictures go into the folder first-steps.
"""

import argparse
from pathlib import Path
from typing import Any

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers

LABELS = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Boot",
)  # fmt: skip
Data = tuple[np.ndarray, np.ndarray]  # images (n, 28, 28), a byte a pixel, and labels (n,), 0 to 9


# 1. Load. Keras downloads 60,000 training images and 10,000 test images once.
def load(count: int) -> tuple[Data, Data, Data]:
    """Images and labels: to learn from, to choose by, and for one look at the end."""
    (images, labels), test = keras.datasets.fashion_mnist.load_data()
    # The network never learns from the validation images. We look at them after every epoch, and
    # choose by them: how long to train, which network. Whoever chooses by the test images as well
    # gets a number that is too good, since some of it is luck that does not come again.
    held = len(images) // 12  # 5,000
    return (images[held:][:count], labels[held:][:count]), (images[:held], labels[:held]), test


# 2. Look at the data before anything else: wrong labels and odd images are found by eye.
def show(images: np.ndarray, titles: list[str], path: Path) -> None:
    """Draw up to fifty images with their titles, ten in a row."""
    figure, axes = plt.subplots(5, 10, figsize=(14, 8))
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.set_title(title, fontsize=9)
    save(figure, path)


def save(figure: plt.Figure, path: Path) -> None:
    """Write a picture."""
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    print(f"Look at {path}")


# 3. Build. A convolution looks for the same small pattern everywhere in the image; pooling keeps
#    its strongest answer in each 2x2 square. So edges become parts, and parts become garments,
#    wherever they are. Dropout hides half of the numbers at random while training, so that the
#    network cannot rest on a few of them.
def build() -> keras.Model:
    """A small convolutional network: pixels from 0 to 255 in, ten probabilities out."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Rescaling(1 / 255),  # networks learn faster from small numbers
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(len(LABELS), activation="softmax"),
        ]
    )


# 4. Fit. The loss is small where the right label gets a high probability. Adam changes the weights
#    a little after every 128 images, in the direction that makes it smaller.
def fit(model: keras.Model, training: Data, validation: Data, epochs: int) -> dict[str, Any]:
    """Train; returns loss and accuracy after each epoch."""
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model.fit(*training, 128, epochs, validation_data=validation).history


# 5. Curves. While both losses fall, it learns. When only the training loss falls, it learns its
#    images by heart (overfitting): stop there, or find more images. Here the validation images do
#    better at first: they are answered without dropout, and at the end of an epoch.
def plot_curves(history: dict[str, Any], path: Path) -> None:
    """Loss and accuracy by epoch, on training and on validation images."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        epochs = range(1, len(history[name]) + 1)
        axis.plot(epochs, history[name], "o-", label="training")
        axis.plot(epochs, history[f"val_{name}"], "o-", label="validation")
        axis.set(xlabel="epoch", title=name)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend()
    save(figure, path)


# 6. Errors. One number hides which garments are mixed up. The most confident mistakes tell most:
#    some labels are wrong, some images are hard for people, too, and the rest it has yet to learn.
def look_at_errors(model: keras.Model, validation: Data, folder: Path) -> None:
    """Draw which labels are mistaken for which, and the mistakes with the highest probability."""
    images, labels = validation
    probabilities = model.predict(images)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)

    counts = np.zeros((len(LABELS), len(LABELS)), dtype=int)
    np.add.at(counts, (labels, predicted), 1)
    figure, axis = plt.subplots(figsize=(8, 8))
    axis.imshow(counts, cmap="Blues")
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if count > counts.max() / 2 else "black"
        axis.text(column, row, count, ha="center", va="center", color=color)
    axis.set_xticks(range(len(LABELS)), LABELS, rotation=45)
    axis.set_yticks(range(len(LABELS)), LABELS)
    axis.set(xlabel="what it says", ylabel="what it is")
    save(figure, folder / "confusion.png")

    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong])][:50]
    titles = [f"{LABELS[labels[i]]}:\n{LABELS[predicted[i]]} {confidence[i]:.2f}" for i in worst]
    show(images[worst], titles, folder / "mistakes.png")


def main() -> None:
    """Take all steps."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=55_000, help="to learn from (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="passes over them (%(default)s)")
    parser.add_argument("--out", type=Path, default="first-steps", help="folder (%(default)s)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(1)  # the same start gives nearly the same result

    training, validation, test = load(options.images)
    order = np.argsort(training[1][:50], kind="stable")  # the first fifty, class by class
    names = [LABELS[label] for label in training[1][order]]
    show(training[0][order], names, options.out / "data.png")

    model = build()
    model.summary()
    history = fit(model, training, validation, options.epochs)
    plot_curves(history, options.out / "curves.png")
    look_at_errors(model, validation, options.out)

    # 7. Test once, and save: one file with architecture and weights, which
    #    keras.models.load_model reads.
    _, accuracy = model.evaluate(*test, verbose=0)
    model.save(options.out / "model.keras")
    print(f"Test accuracy {accuracy:.4f}. Saved {options.out / 'model.keras'}")


if __name__ == "__main__":
    main()
