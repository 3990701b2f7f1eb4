"""The numbers that a model is judged by, all on the test split."""

import numpy as np
from skimage.metrics import structural_similarity
from skimage.restoration import denoise_nl_means
from sklearn import metrics
from tqdm import tqdm

from service.pixels.preprocess import Floats, to_pixels
from training.data import Labels
from training.errors import DataError

NLM_STRENGTHS = (0.4, 0.6, 0.8, 1.0, 1.2, 1.5)  # times sigma


def classification_metrics(
    truth: Labels, probabilities: Floats, labels: tuple[str, ...]
) -> dict[str, float]:
    """Accuracy, and precision, recall, F1 and one-versus-rest ROC AUC: macro and by class.

    truth is (n,), probabilities (n, classes); raises DataError if a class has no test item.
    """
    predicted = probabilities.argmax(axis=1)
    classes = np.arange(len(labels))
    missing = [labels[k] for k in np.setdiff1d(classes, truth)]
    if missing:
        raise DataError(f"expected every class in the test split, got none of {missing}")
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truth, predicted, labels=classes, zero_division=0.0
    )
    auc = np.array([metrics.roc_auc_score(truth == k, probabilities[:, k]) for k in classes])
    result = {
        "accuracy": float((predicted == truth).mean()),
        "test_count": float(len(truth)),
        "precision_macro": float(precision.mean()),
        "recall_macro": float(recall.mean()),
        "f1_macro": float(f1.mean()),
        "roc_auc_ovr_macro": float(auc.mean()),
    }
    by_class = {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "roc_auc": auc,
        "count": support,
    }
    for metric, values in by_class.items():
        for label, value in zip(labels, values, strict=True):
            result[f"{metric}/{label}"] = float(value)
    return result


def confusion(truth: Labels, probabilities: Floats) -> np.ndarray:
    """Counts (true class, predicted class)."""
    classes = np.arange(probabilities.shape[1])
    return metrics.confusion_matrix(truth, probabilities.argmax(axis=1), labels=classes)


def as_posted(noisy: Floats) -> Floats:
    """Images (n, height, width, 1) in 0..1 -> what is left of them in 8 bits."""
    return to_pixels(noisy).astype(np.float32) / np.float32(255)


def non_local_means(noisy: Floats, clean: Floats, sigma: float) -> Floats:
    """scikit-image's non-local means (Buades, Coll, Morel 2005), with the strength that does best.

    The strength is tuned on these very images, which favours it over the network.
    """
    candidates = []
    for strength in tqdm(NLM_STRENGTHS, f"non-local means, sigma {sigma}"):
        images = [
            denoise_nl_means(
                image[..., 0], patch_size=5, patch_distance=6, h=strength * sigma, sigma=sigma
            )
            for image in noisy
        ]
        candidates.append(as_posted(np.stack(images)[..., np.newaxis]))
    return max(candidates, key=lambda images: mean_psnr(clean, images))


def mean_psnr(clean: Floats, images: Floats) -> float:
    """Mean over the images of the peak signal-to-noise ratio in dB."""
    error = np.square(clean - images, dtype=np.float64).mean(axis=(1, 2, 3))
    return float((-10 * np.log10(np.maximum(error, 1e-10))).mean())


def mean_ssim(clean: Floats, images: Floats) -> float:
    """Mean over the images of the structural similarity (Wang et al. 2004)."""
    pairs = zip(clean[..., 0], images[..., 0], strict=True)
    return float(np.mean([structural_similarity(a, b, data_range=1.0) for a, b in pairs]))
