"""Mel spectrograms.

- `spec`: the strict description; `fields`: the rules of its fields; `limits`: how quiet and loud its mels can be;
  `presets`: conventions in use; `bands`: the corners of mel bands; `keys`: of other people's configurations.
- `identification`: which preset made a mel.
- `transform`: from a waveform to its mel; `conversion`: back to spectra, and from one spec to another.
- `check`: whether a mel can belong to a spec; `file`: mels on disk.
"""
