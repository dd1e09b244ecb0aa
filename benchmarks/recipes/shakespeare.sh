# The model to start with: checkpoints/shakespeare.safetensors.
chargen train tinyshakespeare.txt --minutes 10 --out checkpoints/shakespeare && chargen export checkpoints/shakespeare checkpoints/shakespeare.safetensors --quantize int8
