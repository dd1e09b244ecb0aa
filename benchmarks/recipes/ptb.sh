# Penn Treebank's characters, split as given, one hour.
chargen train ptb.train.txt --valid ptb.valid.txt --test ptb.test.txt --minutes 60 --out checkpoints/ptb
