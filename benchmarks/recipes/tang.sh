# The Tang poems, 90/5/5, one hour.
chargen train tang.txt --valid-fraction 0.05 --test-fraction 0.05 --minutes 60 --out checkpoints/tang
