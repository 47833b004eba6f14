"""Which packages the windows come from, by registry; a package is wholly of the training, the tuning or the test.

Several packages of one upstream repository share a line, joined by ``+``, so that they share a side too.
"""

from __future__ import annotations

import hashlib
from typing import Final

DEBIAN_SOURCES: Final = """
    binaryen wabt emscripten
    postgresql-15 postgis icinga2 roundcube freeradius kamailio mediawiki
    git dracut initramfs-tools debootstrap devscripts
    zlib redis lua5.4 jq tmux libuv1 libevent hiredis libgit2 htop cjson musl libxml2 busybox libbpf
    leveldb fmtlib spdlog re2 snappy catch2 yaml-cpp tinyxml2 pugixml glm googletest abseil nlohmann-json3
    junit4 guava-libraries jsoup commons-io
    puma rubocop
    symfony composer php-guzzlehttp-psr7 phpunit php-parser
    libmojolicious-perl libmoose-perl ack perltidy
    luarocks awesome nunit dbus-sharp iso-codes
""".split()
"""Source packages."""

DEBIAN_PACKAGES: Final = """
    postgresql-15-pgtap postgresql-15-partman postgresql-15-orafce postgresql-15-cron icingaweb2
    bash-completion shunit2 etckeeper byobu pass neofetch ufw dkms bats git-extras
    ruby-rack ruby-sinatra ruby-mustache rake lua-penlight prosody ansible-core
    golang-github-spf13-cobra-dev golang-github-gorilla-mux-dev golang-github-sirupsen-logrus-dev
    golang-github-stretchr-testify-dev golang-github-prometheus-client-golang-dev golang-github-urfave-cli-dev
    golang-github-pkg-errors-dev golang-github-gin-gonic-gin-dev golang-github-go-chi-chi-dev
    golang-github-miekg-dns-dev golang-github-hashicorp-raft-dev golang-github-boltdb-bolt-dev
    golang-github-burntsushi-toml-dev golang-github-fsnotify-fsnotify-dev golang-github-tidwall-gjson-dev
    golang-github-google-uuid-dev golang-github-jmoiron-sqlx-dev golang-golang-x-net-dev golang-golang-x-crypto-dev
    librust-serde-dev librust-regex-dev librust-tokio-dev librust-clap-dev librust-rand-dev librust-syn-dev
    librust-hyper-dev librust-rayon-dev librust-itertools-dev librust-nom-dev librust-crossbeam-utils-dev
    librust-image-dev librust-petgraph-dev librust-chrono-dev librust-url-dev librust-log-dev librust-anyhow-dev
    librust-bytes-dev librust-indexmap-dev librust-semver-dev librust-toml-dev librust-time-dev
""".split()
"""Packages that hold sources, as those of Rust's crates and Go's modules do."""

PYPI: Final = """
    ziglang ziggy-pydust
    requests flask django jinja2 click sqlalchemy celery fastapi pydantic networkx sympy scrapy black pip setuptools
    twisted pandas scikit-learn httpx rich attrs boltons more-itertools dask xarray bokeh statsmodels tornado
    gunicorn paramiko fabric docutils sphinx pyyaml openai langchain-core transformers gradio streamlit
""".split()
"""Wheels."""

NPM: Final = """
    node-zigar-addon
    rxjs zod immer @reduxjs/toolkit @tanstack/query-core @tanstack/table-core ethers viem effect superstruct msw ajv
    @noble/hashes+@noble/curves @lit/reactive-element+lit-html mobx fast-check nanostores drizzle-orm kysely ts-morph
    type-graphql typedi class-validator inversify tsyringe graphql-request @trpc/server @trpc/client remeda ts-pattern
    io-ts fp-ts neverthrow date-fns chevrotain @xstate/fsm xstate @apollo/client urql @urql/core formik swr pinia
    lodash express async underscore three d3-array+d3-scale+d3-shape+d3-hierarchy commander webpack eslint mocha chai
    sinon ws fastify koa @hapi/hapi mongoose pg+pg-pool+pg-protocol mysql knex bluebird request ejs uglify-js svgo
    postcss jsdom undici npm restify nodemailer sequelize mathjs hexo jsonwebtoken passport body-parser debug
    winston bull ioredis vega-datasets mime-db mdn-data world-atlas @mdn/browser-compat-data emojibase-data
    cldr-core cldr-dates-full bootstrap bulma foundation-sites normalize.css
    react-native-webview react-native-screens react-native-gesture-handler expo-modules-core expo-camera
    expo-file-system @capacitor/android @capacitor/ios react-native-svg @react-native-async-storage/async-storage
    expo-image expo-notifications expo-updates
""".split()
"""Packages of node."""

REGISTRIES: Final = {"debian-source": DEBIAN_SOURCES, "debian": DEBIAN_PACKAGES, "pypi": PYPI, "npm": NPM}

SIDES: Final = ("train", "tune", "test")


def side_of(repository: str) -> str:
    """Return a repository's side: of ten 6 are ``train``, 2 ``tune`` and 2 ``test``.

    Some languages have few repositories; for those the side is said here, so that each side has one.

    Example:
        >>> side_of("wabt"), side_of("ziglang")
        ('test', 'train')
    """
    if repository in _SAID:
        return _SAID[repository]
    number = hashlib.sha256(repository.encode()).digest()[0] % 10
    return "train" if number < 6 else "tune" if number < 8 else "test"


_SAID: Final = {
    "wabt": "test",
    "binaryen": "train",
    "emscripten": "train",
    "ziglang": "train",
    "ziggy-pydust": "test",
    "node-zigar-addon": "test",
}
