"""What only some runs or the end of a run needs is not imported at the start: together it takes longer than JAX."""

import subprocess
import sys

LATE = {"datasets", "matplotlib", "mlxtend", "pandas", "pyarrow", "scipy", "sklearn", "torch", "transformers"}


def test_the_heavy_packages_are_not_imported_at_the_start():
    code = f"import sys, kdjax.study; print(*sorted({LATE} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stdout + done.stderr
