# The model that comes with chargen: chargen/pretrained/shakespeare.safetensors.
chargen train tinyshakespeare.txt --minutes 10 --out checkpoints/shakespeare && chargen export checkpoints/shakespeare checkpoints/shakespeare.safetensors --quantize int8
