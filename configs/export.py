"""A trained adapter in the format of another program: GGUF for llama.cpp and Ollama, MLX for Macs.

    python launch.py --config=configs/export.py --config.student.adapter=runs/<run>/adapter \\
        --config.export.format=gguf --config.export.out=bundles.gguf

Then, with the same base model as a GGUF file:

    llama-cli -m base.gguf --lora bundles.gguf                     # Ollama: a Modelfile with FROM base.gguf and ADAPTER ./bundles.gguf
    mlx_lm.generate --model BASE --adapter-path bundles            # of --config.export.format=mlx, whose out is a folder

For students that write (config.student.answer="text"); others are refused. DoRA goes to MLX alone. Seconds.
"""

from ml_collections.config_dict import create

from configs.base import base, variant


def get_config(arg: str = ""):
    config = variant(base("export"), arg)
    config.job = "export"
    config.student.source = ""  # the base model, of which only the shape is read; "": the one that the adapter names
    config.export = create(
        format="gguf",  # "gguf": a file; "mlx": a folder
        out="",  # where to write; nothing may be there yet
    )
    return config
