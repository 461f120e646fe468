"""How close generated pictures come to real ones (KID, FID), and to what they were asked to show.

Neither distance means anything without the net that it is taken in and the number of pictures, so that these stand
beside every number.
"""
