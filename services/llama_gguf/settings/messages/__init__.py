"""Problems in words: codes, places, hints, did-you-mean. Pure."""
