"""Agreement of scores with opinions, by numpy and scipy only.

NaN means that the data define no such number.
"""

from vqa.metrics.correlation import krcc, mae, outlier_ratio, pairwise_accuracy, plcc, rmse, srcc

__all__ = ["krcc", "mae", "outlier_ratio", "pairwise_accuracy", "plcc", "rmse", "srcc"]
