"""Loading a student must not import torch: it would take its memory and its threads beside JAX."""

import os
import subprocess
import sys

PROGRAM = """
import sys
from kdjax.student import LoraConfig, load_student
student = load_student(sys.argv[1], lora=LoraConfig(r=2))
student.tokenizer.render([{"role": "user", "content": "hi"}])
student.save_adapter(sys.argv[2])
student.save_merged(sys.argv[2] + "-merged")
import gguf
found = {"torch", "transformers", "peft"} & set(sys.modules)
sys.exit(f"imported: {sorted(found)}" if found else 0)
"""


def test_a_student_imports_no_torch(tiny_folder, tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tiny_folder), str(tmp_path / "out")]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
