# War and Peace, 80/10/10 of its bytes, line ends kept, one hour.
chargen train warpeace.txt --unit byte --valid-fraction 0.1 --test-fraction 0.1 --minutes 60 --out checkpoints/warpeace
