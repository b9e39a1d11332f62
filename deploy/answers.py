"""Health check of a container: whether a page of a server in it answers with success. Usage: answers.py URL."""

import sys
import urllib.request

with urllib.request.urlopen(sys.argv[1], timeout=8) as response:
    sys.exit(0 if response.status == 200 else 1)
