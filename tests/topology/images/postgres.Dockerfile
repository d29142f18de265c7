# In place of the official image: Debian's PostgreSQL with the parts of the entry point that compose.yaml relies on.
FROM debian:bookworm
RUN apt-get update && apt-get install -y --no-install-recommends postgresql
RUN ln -sf /usr/lib/postgresql/*/bin/* /usr/local/bin/ \
    && install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data \
    && install -d -o postgres -g postgres /run/postgresql
ENV PGDATA=/var/lib/postgresql/data LANG=C.UTF-8
COPY tests/topology/images/postgres.sh /usr/local/bin/docker-entrypoint.sh
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
