# The cert-manager image: nginx, cert-manager and certbot under supervisord, on Debian.
#
# Nothing in it depends on when or where it is built: packages are pinned, those of the base as well
# (packages.lock, certbot.lock, supervisor.lock), what package managers leave behind is removed, and
# deploy/build-image has the engine set every time stamp to that of the last commit.

ARG BASE=docker.io/library/debian:trixie-slim

# ---- the program and the modules ----------------------------------------------------------
FROM ${BASE} AS build
# See deploy/install-locked. The secret "snapshot" is none, but a secret is not in the image's history.
ARG PACKAGES=locked
RUN --mount=type=bind,source=packages.lock,target=/tmp/packages.lock \
    --mount=type=bind,source=deploy/install-locked,target=/tmp/install-locked \
    --mount=type=secret,id=snapshot \
    sh /tmp/install-locked /tmp/packages.lock build
WORKDIR /build
COPY Makefile ./
COPY orchestrator orchestrator
COPY ekm-module ekm-module
COPY hooks hooks
COPY nginx_conf nginx_conf
COPY docs/man docs/man
COPY supervisord.conf LICENSE ./
# Without debug information: a backtrace in the log has function names all the same.
RUN make -j"$(nproc)" && make install DESTDIR=/out && \
    strip --strip-unneeded /out/usr/bin/cert-manager /out/usr/lib/nginx/modules/*.so && \
    rm -rf /out/usr/share/man /out/usr/share/bash-completion

# ---- certbot and supervisor, as their makers release them ----------------------------------
FROM ${BASE} AS python
ARG PACKAGES=locked
RUN --mount=type=bind,source=packages.lock,target=/tmp/packages.lock \
    --mount=type=bind,source=deploy/install-locked,target=/tmp/install-locked \
    --mount=type=secret,id=snapshot \
    sh /tmp/install-locked /tmp/packages.lock python
# Byte code is made here, for users who may not write it, with sums of the sources in place of
# their dates. pip has done its work.
# The secret "roots" may have further roots, for builds behind a proxy that looks into TLS.
# supervisor's own releases start faster than Debian's, and take less memory: no pkg_resources.
RUN --mount=type=bind,source=certbot.lock,target=/tmp/certbot.lock \
    --mount=type=bind,source=supervisor.lock,target=/tmp/supervisor.lock \
    --mount=type=secret,id=roots \
    set -eu; \
    if [ -s /run/secrets/roots ]; then export PIP_CERT=/run/secrets/roots; fi; \
    for program in certbot supervisor; do \
      cd /opt; \
      python3 -m venv "$program"; \
      pip="$program/bin/pip --disable-pip-version-check --no-cache-dir"; \
      $pip install --quiet --no-compile --require-hashes --no-deps --only-binary=:all: -r "/tmp/$program.lock"; \
      $pip check; \
      $pip list --format=freeze | grep -v '^pip==' >>python.list; \
      find "$program/bin" -mindepth 1 \
        ! -name certbot ! -name supervisord ! -name supervisorctl ! -name 'python*' -delete; \
      rm -rf "$program/include" "$program/.gitignore" "$program"/lib/python3*/site-packages/pip \
        "$program"/lib/python3*/site-packages/pip-*; \
      find "$program" -depth -type d '(' -name tests -o -name _tests -o -name __pycache__ ')' -exec rm -rf '{}' +; \
      python3 -B -m compileall -q -f -j 1 --invalidation-mode unchecked-hash "/opt/$program/lib"; \
    done

# ---- what runs ----------------------------------------------------------------------------
FROM ${BASE} AS runtime
ARG PACKAGES=locked
# useradd notes it as the day of the password, the bill of materials as its own.
ARG SOURCE_DATE_EPOCH=0
# The services that Debian's packages bring are not started (policy-rc.d), and what differs from
# build to build is removed in the same layer: logs, caches, lists, backups of dpkg and shadow.
# Of the documentation the licences stay. Nobody becomes root by running a program: no set-user-ID bits.
RUN --mount=type=bind,source=packages.lock,target=/tmp/packages.lock \
    --mount=type=bind,source=deploy/install-locked,target=/tmp/install-locked \
    --mount=type=secret,id=snapshot \
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 0755 /usr/sbin/policy-rc.d && \
    sh /tmp/install-locked /tmp/packages.lock runtime && \
    useradd --system --user-group --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin certbot && \
    rm -rf /usr/sbin/policy-rc.d \
      /etc/nginx/sites-enabled /etc/nginx/sites-available /etc/nginx/modules-enabled \
      /etc/nginx/snippets /etc/nginx/nginx.conf \
      /var/www /var/lib/nginx && \
    apt-get -q clean && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/* \
      /var/lib/dpkg/*-old /var/lib/dpkg/lock* /var/lib/dpkg/triggers/Lock /var/log/* /etc/*- \
      /usr/share/man/* /usr/share/info/* /usr/share/locale/* \
      /usr/share/lintian /usr/share/bash-completion /usr/include/* && \
    find /usr/share/doc -mindepth 1 ! -type d ! -name copyright -delete && \
    find /usr/share/doc -mindepth 1 -type d -empty -delete && \
    find / -xdev -type f -perm /6000 -exec chmod ug-s '{}' + && \
    find /usr/lib/python3* -depth -type d -name __pycache__ -exec rm -rf '{}' + && \
    find / -xdev -name '*.pyc' -delete && \
    python3 -B -m compileall -q -f -j 1 --invalidation-mode unchecked-hash \
      /usr/lib/python3 /usr/lib/python3.13 && \
    mkdir -p /etc/nginx/ssl /etc/nginx/conf.d /acme-challenge /etc/cert-manager && \
    chmod 0755 /etc/nginx/ssl /acme-challenge && \
    # Where the root file system is read-only, the rendered configuration is on tmpfs; it is the
    # same way everywhere.
    ln -s /run/cert-manager/default.conf /etc/nginx/conf.d/default.conf
COPY --from=python /opt/certbot /opt/certbot
COPY --from=python /opt/supervisor /opt/supervisor
COPY --from=build /out /
# The bill of materials is in the image that it is about.
ARG VERSION=0.1.0
RUN --mount=type=bind,source=certbot.lock,target=/tmp/certbot.lock \
    --mount=type=bind,source=supervisor.lock,target=/tmp/supervisor.lock \
    --mount=type=bind,source=deploy/sbom,target=/tmp/sbom \
    --mount=type=bind,from=python,source=/opt/python.list,target=/tmp/python.list \
    mkdir -p /usr/share/sbom && \
    python3 /tmp/sbom "${VERSION}" /tmp/python.list /tmp/certbot.lock /tmp/supervisor.lock \
      >/usr/share/sbom/cert-manager.spdx.json && \
    ln -s /opt/certbot/bin/certbot /opt/supervisor/bin/supervisord /opt/supervisor/bin/supervisorctl /usr/bin/ && \
    ln -s conf.d/supervisord.conf /etc/supervisor/supervisord.conf

EXPOSE 80 443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=2m CMD ["/usr/bin/cert-manager", "health"]
CMD ["/usr/bin/cert-manager", "prestart", "--boot", "--wake", "/run/supervisor.sock", "--", \
     "/usr/bin/supervisord", "-c", "/etc/supervisor/conf.d/supervisord.conf"]

# deploy/build-image adds labels for the base image.
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="cert-manager" \
      org.opencontainers.image.description="TLS for services in confidential VMs: nginx, and a certificate that is measured" \
      org.opencontainers.image.vendor="Concrete Security" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
