"""Features, labels and models: what a strategy's model learns from, how it is trained, and where it is kept."""

import os

# Gradient boosting works in threads that wait for one another hundreds of times a second. By default they keep the
# processor while they wait: beside other busy processes a training of 0.3 s then takes a minute, and burns it.
# OpenMP reads this when scikit-learn is loaded, which happens later.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
