"""OpenStack Swift with its S3 API for the tests: proxy, account, container and object server in one process, on loopback.

Usage: swift-server.py FOLDER. Standard input starts with a line of JSON, {"accessKeyId", "secretAccessKey", "maxMetadataValueBytes"}; the address is printed as one line of JSON once everything listens. It ends when standard input does.
"""
import eventlet

eventlet.monkey_patch()

import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402

from eventlet import hubs, wsgi  # noqa: E402

folder = sys.argv[1]
keys = json.loads(sys.stdin.readline())

devices = os.path.join(folder, "devices")
os.makedirs(os.path.join(devices, "d"))
with open(os.path.join(folder, "swift.conf"), "w") as file:
    file.write("[swift-hash]\nswift_hash_path_suffix = tests\n")
    file.write("[swift-constraints]\nmax_meta_value_length = %d\n" % keys["maxMetadataValueBytes"])

from swift.common import utils  # noqa: E402

utils.SWIFT_CONF_FILE = os.path.join(folder, "swift.conf")
utils.HASH_PATH_SUFFIX = b"tests"

from swift.common import constraints  # noqa: E402

constraints.reload_constraints()

from swift.account.server import AccountController  # noqa: E402
from swift.common.middleware import bulk, catch_errors, copy, gatekeeper, listing_formats  # noqa: E402
from swift.common.middleware import proxy_logging, slo, tempauth  # noqa: E402
from swift.common.middleware.s3api import s3api  # noqa: E402
from swift.common.http_protocol import SwiftHttpProtocol  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.container.server import ContainerController  # noqa: E402
from swift.obj.server import ObjectController  # noqa: E402
from swift.proxy.server import Application  # noqa: E402

logging.disable(logging.INFO)
# In place of the machine's log.
utils.ThreadSafeSysLogHandler = lambda *_, **__: logging.StreamHandler(sys.stderr)
base = {
    "devices": devices,
    "swift_dir": folder,
    "mount_check": "false",
    "bind_ip": "127.0.0.1",
    "workers": "0",
    "disable_fallocate": "true",
    "log_level": "ERROR",
}


def listen():
    return eventlet.listen(("127.0.0.1", 0), backlog=256)


def serve(sock, app):
    # Every connection is answered in a green thread of its own.
    eventlet.spawn(
        wsgi.server, sock, app, protocol=SwiftHttpProtocol, capitalize_response_headers=False, log=open(os.devnull, "w"), log_output=False,
        custom_pool=eventlet.GreenPool(1000), socket_timeout=60,
    )


for kind, controller in (
    ("account", AccountController),
    ("container", ContainerController),
    ("object", ObjectController),
):
    sock = listen()
    port = sock.getsockname()[1]
    builder = RingBuilder(2, 1, 0)
    builder.add_dev({
        "id": 0, "region": 1, "zone": 1, "weight": 1.0, "device": "d",
        "ip": "127.0.0.1", "port": port, "replication_ip": "127.0.0.1", "replication_port": port,
    })
    builder.rebalance()
    builder.get_ring().save(os.path.join(folder, kind + ".ring.gz"))
    serve(sock, controller(dict(base, bind_port=str(port))))


class Cache(dict):
    """In place of memcached."""

    def __bool__(self):
        return True

    def set(self, key, value, *_, **__):
        self[key] = value

    def get(self, key, *_, **__):
        return dict.get(self, key)

    def delete(self, key, *_, **__):
        self.pop(key, None)

    def incr(self, key, delta=1, **_):
        self[key] = int(dict.get(self, key) or 0) + delta
        return self[key]


cache = Cache()


def with_cache(app):
    def call(env, start_response):
        env["swift.cache"] = cache
        return app(env, start_response)

    return call


app = Application(
    dict(base, allow_account_management="true", account_autocreate="true", node_timeout="60", client_timeout="60"),
    logger=utils.get_logger(base, log_route="proxy"),
)
user = "user_" + "_".join(keys["accessKeyId"].split(":"))
for factory, conf in (
    (slo.filter_factory, {}),
    (copy.filter_factory, {}),
    (tempauth.filter_factory, {user: keys["secretAccessKey"] + " .admin"}),
    (s3api.filter_factory, {"location": "us-east-1", "s3_acl": "false", "check_bucket_owner": "false"}),
    (bulk.filter_factory, {}),
    (listing_formats.filter_factory, {}),
):
    app = factory(dict(base), **conf)(app)
app = with_cache(app)
# Logging gives answers the length without which the server would send a body after HEAD.
for factory in (proxy_logging.filter_factory, gatekeeper.filter_factory, catch_errors.filter_factory):
    app = factory(dict(base))(app)

sock = listen()
serve(sock, app)
print(json.dumps({"url": "http://127.0.0.1:%d" % sock.getsockname()[1]}), flush=True)
# Whoever started it holds the other end, and lets go of it at the latest when it dies.
while True:
    hubs.trampoline(sys.stdin.fileno(), read=True)
    if not os.read(sys.stdin.fileno(), 4096):
        os._exit(0)
