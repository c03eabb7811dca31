"""How well scores follow opinions; numpy and scipy only. NaN stands for "no such number", never for a fault."""

from vqa.metrics.correlation import krcc, mae, outlier_ratio, pairwise_accuracy, plcc, rmse, srcc

__all__ = ["krcc", "mae", "outlier_ratio", "pairwise_accuracy", "plcc", "rmse", "srcc"]
