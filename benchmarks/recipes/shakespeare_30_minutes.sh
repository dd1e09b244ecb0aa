# Tiny Shakespeare, 90/5/5, half an hour.
chargen train tinyshakespeare.txt --valid-fraction 0.05 --test-fraction 0.05 --minutes 30 --out checkpoints/shakespeare_30_minutes
