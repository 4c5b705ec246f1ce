"""Vocoders on disk.

- `container`: the melvoc file; `vocoder_file`: vocoders to and from it.
- `conversion`: published checkpoints; `hub`: downloads.
- `cache`: where things are kept; `atomic`: files written completely or not at all; `costs`: results of `doctor --tune`.
"""
