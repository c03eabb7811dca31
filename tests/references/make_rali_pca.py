"""Make rali_pca.pkl, a PCA as released RALI's: `pip install joblib==1.6.0 scikit-learn==1.9.1`, then run this."""

from pathlib import Path

import joblib
import numpy as np
from sklearn.decomposition import IncrementalPCA

points = np.random.default_rng(0).standard_normal((64, 16)) * np.arange(1, 17) + 0.5
joblib.dump(IncrementalPCA(n_components=6).fit(points), Path(__file__).with_name("rali_pca.pkl"))
