"""The files of a store: on a disk or in an S3 bucket, written completely or not at all."""
