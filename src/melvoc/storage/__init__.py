"""Vocoders at rest.

- `container`: the melvoc file; `vocoder_file`: vocoders to and from it.
- `conversion`: published checkpoints; `pins`: those that melvoc knows by name; `hub`: downloads.
- `cache`: where things are kept; `atomic`: files that are whole or not there; `costs`: what `doctor --tune` measured.
"""
