# In place of the official image: Debian's Redis.
FROM debian:bookworm
RUN apt-get update && apt-get install -y --no-install-recommends redis-server
RUN install -d -o redis -g redis /data
WORKDIR /data
CMD ["redis-server"]
