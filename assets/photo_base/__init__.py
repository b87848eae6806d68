"""The parts of `make_photo_base.py`: how the photo base of this folder was trained."""
