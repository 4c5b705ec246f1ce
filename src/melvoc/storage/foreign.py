"""What a file or a configuration that melvoc does not read looks like, and what to do about it: one table.

A row is found by signs, which are lines of text: `bytes: ` and the first bytes of a file, `file: ` and its name,
`key: ` and the name of a tensor, `config: ` and a key of a configuration with its value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache

HEAD = 512  # bytes of a file that tell what it is
_ITS_OWN = "give the whole configuration that was published with it"
_ELSEWHERE = "another network than melvoc's; use the project it comes from"
_F0 = "it needs the pitch (f0) beside the mel, which melvoc does not support; use the project it comes from"
_UNITS = "its input is units of speech, not a mel; use the project it comes from"
_TRAINING = "there is no generator in it; give the generator's file, which was saved or published beside it"
_REFLECTS = (
    "its convolutions pad by reflection where melvoc's HiFi-GAN pads with zeros, and the ends would sound otherwise; "
    "use speechbrain"
)

# What it is, what to do, and its signs. The first row with a sign that fits counts: what is more special comes first.
_ROWS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "a Git LFS pointer, not the file",
        "run `git lfs pull`, or download the file itself from the repository's page",
        (r"bytes: version https://git-lfs",),
    ),
    (
        "a web page, not the file",
        "download it with the link of the file itself (on the Hub `resolve`, not `blob`), and a token if it needs one",
        (r"(?i:bytes: \s*<(!doctype|html|\?xml))",),
    ),
    (
        "a configuration, not weights",
        "give the weights, and this file with --config",
        (r"bytes: \s*\{", r"file: .*\.(json|ya?ml)$"),
    ),
    (
        "NeMo's archive or configuration",
        "its HiFi-GAN is " + _ELSEWHERE,
        (r"file: .*\.nemo$", r"bytes: .{257}ustar", r"config: (.*\.)?_?target_?=nemo"),
    ),
    (
        "an ONNX model",
        "give the PyTorch checkpoint that it was exported from",
        (r"file: .*\.(onnx|oudep)$", r"bytes: \x08[\x01-\x10]\x12.(pytorch|onnx|tf2onnx|skl2onnx)"),
    ),
    (
        "a TensorFlow or Keras model",
        "give a PyTorch checkpoint",
        (r"bytes: \x89HDF", r"file: .*\.(h5|keras|pb|tflite)$"),
    ),
    ("a GGUF file", "give the PyTorch checkpoint that it was made from", (r"bytes: (GGUF|ggml)",)),
    (
        "sound or a bare array",
        "give the generator's weights",
        (r"bytes: (\x93NUMPY|RIFF|fLaC|OggS|ID3)",),
    ),
    (
        "an archive",
        "unpack it, and give the checkpoint in it",
        (r"bytes: (\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ)", r"file: .*\.(zip|7z|rar|tgz|gz)$"),
    ),
    (
        "NSF-HiFiGAN, or another vocoder with a source of harmonics",
        _F0,
        (
            r"key: (.*\.)?(m_source|noise_convs|source_convs?|source_downs|source_resblocks|f0_predictor)\.",
            r"config: (.*\.)?(mini_nsf|harmonic_num|nsf_params)\b",
        ),
    ),
    (
        "a unit HiFi-GAN",
        _UNITS,
        (
            r"key: (.*\.)?(unit_embedding|var_predictor|dur_predictor|dict)\.",
            r"config: (.*\.)?(num_embeddings|unit_hifi_gan_vocab_size|code_hop_size)\b",
        ),
    ),
    (
        "SpeechBrain's HiFi-GAN",
        _REFLECTS,
        (r"key: (.*\.)?(conv_pre|conv_post)\.conv\.", r"config: .*speechbrain"),
    ),
    ("Pupu-Vocoder", _ELSEWHERE, (r"key: (.*\.)?convolution_(noise|after)\.", r"file: .*pupu")),
    (
        "coqui's HiFi-GAN",
        "write its generator_model_params into a config.json under HiFi-GAN's names (upsample_factors are "
        "upsample_rates, resblock_type is resblock), and give its mel with --spec",
        (r"config: (.*\.)?generator_model(_params)?\b",),
    ),
    (
        "ParallelWaveGAN's or ESPnet's",
        _ELSEWHERE,
        (
            r"key: (.*\.)?(input_conv|output_conv|upsamples\.\d+)\.",
            r"config: (.*\.)?(generator_type|upsample_scales)\b",
        ),
    ),
    ("VITS", "its decoder takes latents, not a mel; use the project it comes from", (r"key: (.*\.)?(enc_p|enc_q)\.",)),
    (
        "a codec (DisCoder, DAC, EnCodec)",
        _ELSEWHERE,
        (r"key: (.*\.)?(quantizer|decoder\.model\.\d+)\.", r"(?i:file: .*discoder)", r"config: .*encodec"),
    ),
    ("WaveNeXt", _ITS_OWN, (r"key: (.*\.)?head\.linear_[12]\.", r"config: .*WaveNextHead")),
    ("iSTFTNet", _ITS_OWN, (r"config: (.*\.)?gen_istft_\w+",)),
    ("UnivNet or MelGAN", _ELSEWHERE, (r"key: (.*\.)?(res_stack|lvc_blocks)\b", r"config: .*(?i:univnet|melgan)")),
    ("DiffWave", _ELSEWHERE, (r"key: (.*\.)?(diffusion_embedding|residual_layers)\.",)),
    ("WaveGlow", _ELSEWHERE, (r"key: (.*\.)?(WN|convinv)\.\d",)),
    ("a discriminator", _TRAINING, (r"(?i:key: (.*\.)?(mpd|msd|mrd|mbd|cqtd|\w*discriminators?|\w*disc)\.)",)),
    ("an optimizer's state", _TRAINING, (r"(?i:key: (.*\.)?(optim\w*|param_groups|exp_avg\w*|lr_scheduler)\b)",)),
)


@cache
def table() -> tuple[tuple[str, str, re.Pattern[str]], ...]:
    """The rows, compiled when the first error needs them: titles, advice, and a pattern of the signs."""
    return tuple((title, advice, re.compile("|".join(signs), re.DOTALL)) for title, advice, signs in _ROWS)


def looks_like(signs: Iterable[str]) -> str:
    """`"TITLE: ADVICE"` of the first row that a sign fits, or nothing."""
    known = list(signs)
    for title, advice, pattern in table():
        if any(pattern.match(sign, 0, HEAD) for sign in known):
            return f"{title}: {advice}"
    return ""


def signs_of_file(name: str, head: bytes) -> list[str]:
    """The signs of a file, from its name and its first bytes."""
    return [f"file: {name}", f"bytes: {head.decode('latin-1')}"]


def signs_of_keys(names: Iterable[object]) -> Iterator[str]:
    """The signs of a checkpoint, from the paths of everything in it."""
    return (f"key: {name}." for name in names)
