import sys

from fastllie.cli import main

sys.exit(main())
