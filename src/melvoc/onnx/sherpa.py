"""The words of sherpa-onnx's files (csrc/vocoder.cc) that melvoc's reader and writer share."""

SOUND = "hifigan"  # `model_type` of any network with sound for its output
SPECTRAL = "vocos"  # of one that gives magnitudes, cosines and sines, and leaves the inverse STFT to its user
