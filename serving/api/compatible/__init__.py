"""The APIs of other servers, for clients that people have."""
