# Tiny Shakespeare, 90/10, up to two hours, and with dynamic evaluation.
chargen train tinyshakespeare.txt --minutes 120 --out checkpoints/shakespeare_2_hours && chargen eval checkpoints/shakespeare_2_hours tinyshakespeare.txt --part valid --dynamic
