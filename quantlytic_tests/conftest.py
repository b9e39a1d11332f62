"""What holds for every test: the profile is each test's own choice, whatever the shell that runs them is set up for."""

import os

os.environ.pop("QUANTLYTIC_PROFILE", None)
