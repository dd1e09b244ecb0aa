# The model that comes with chargen: chargen/pretrained/shakespeare.safetensors, of no more than 4 MB.
chargen train tinyshakespeare.txt --minutes 10 --counts 8 --counts-mb 1.34 --out checkpoints/shakespeare && chargen export checkpoints/shakespeare checkpoints/shakespeare.safetensors --quantize int8
