# Tiny Shakespeare, 90/10, half an hour.
chargen train tinyshakespeare.txt --minutes 30 --out checkpoints/shakespeare_30_minutes
