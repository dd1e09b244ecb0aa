# Tiny Shakespeare, 90/10, three minutes.
chargen train tinyshakespeare.txt --minutes 3 --out checkpoints/shakespeare_3_minutes
