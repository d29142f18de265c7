"""Where things are and how they are reached: read once from `SAEBYEOK_*` variables, then passed down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline.errors import SettingsError

ROOT = Path(__file__).resolve().parent.parent
#: A checkout keeps what it writes in itself; an installed package has no such place and takes the current directory.
DEFAULT_HOME = (ROOT if (ROOT / "pyproject.toml").is_file() else Path.cwd()) / ".saebyeok"


class Settings(BaseSettings):
    """Every setting, from the environment (`SAEBYEOK_HOME`, `SAEBYEOK_STORE`, ...)."""

    model_config = SettingsConfigDict(env_prefix="SAEBYEOK_", env_ignore_empty=True, frozen=True, extra="ignore")

    home: Path = Field(default=DEFAULT_HOME, description="all that is written goes below this directory")
    store: str = Field(default="", description="artifact store: a directory or s3://bucket/prefix; empty: HOME/store")
    data: Path | None = Field(default=None, description="directory with the published files; empty: the shipped sample")
    source: Literal["directory", "download", "hub"] = Field(
        default="directory",
        description="where the published files come from: the directory SAEBYEOK_DATA, "
        "or a download or the Hugging Face hub into HOME/data",
    )
    profile: str = Field(default="embedded", description="recipe profile: embedded or full")
    keep_deployments: int = Field(
        default=7, ge=2, description="deployments that can be rolled back to; what only older ones need is deleted"
    )
    keep_days: float = Field(default=2.0, ge=0, description="days for which whatever a run made is kept, at least")
    expectations: Path = Field(default=ROOT / "expectations", description="the Great Expectations project")
    service_url: str = Field(
        default="http://127.0.0.1:3000", pattern=r"^https?://.+", description="where the BentoML service answers"
    )
    airflow_url: str = Field(default="http://127.0.0.1:8080", description="where Airflow's UI and REST API answer")
    deploy_token: SecretStr | None = Field(default=None, description="secret for staging; empty: HOME/deploy.token")
    deploy_seconds: float = Field(
        default=180.0,
        gt=0,
        description="seconds in which all workers of the service must load a release, and again to switch to it",
    )
    alert_webhook: SecretStr | None = Field(
        default=None, description="URL that alerts are posted to as JSON; empty: none"
    )
    wandb_texts: bool = Field(
        default=False, description="send rows of the data to Weights & Biases too, not only figures"
    )
    threads: int = Field(
        default=0,
        ge=0,
        description="CPU threads for training and inference; 0: one a core (one to train a model from scratch)",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="what answers: a GPU where one works, the CPU, or a GPU and nothing else"
    )
    batch_tokens: int = Field(
        default=0,
        ge=0,
        description="tokens, padding included, that are computed at once in a thread; 0: 256 on a CPU, 16,384 on a GPU",
    )
    workers: int = Field(default=2, ge=1, le=64, description="processes of the service that share its port")

    api_keys: SecretStr | None = Field(
        default=None,
        description="keys that open the service, of 16 characters or more each, with commas between them: a new one is "
        "added before the old one is taken away; empty: it is open",
    )
    max_inputs: int = Field(default=1_000, ge=1, description="texts or pairs of a request to the service; more: 422")
    max_characters: int = Field(default=10_000, ge=1, description="characters of each of its texts; more: 422")
    max_body_bytes: int = Field(
        default=2 * 1024**2, ge=1024, description="bytes of its body, before and after it is decompressed; more: 413"
    )
    max_concurrent: int = Field(
        default=0,
        ge=0,
        description="batches of requests that each process of the service computes at once; 0: one a thread",
    )
    max_queue: int = Field(default=256, ge=0, description="requests that wait in each process; the next one: 429")
    request_seconds: float = Field(
        default=30.0, gt=0, description="seconds for a request; a body that is not there by then: 408, no answer: 504"
    )

    @property
    def store_uri(self) -> str:
        """The artifact store's URI, a local directory below `home` unless set."""
        return self.store or str(self.home / "store")

    @property
    def deploy_token_file(self) -> Path:
        """The file that holds the deploy token where `SAEBYEOK_DEPLOY_TOKEN` is not set."""
        return self.home / "deploy.token"


def load_settings() -> Settings:
    """Read the settings from the environment. Raises SettingsError naming variable and rule."""
    try:
        settings = Settings()
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(item) for item in error.errors())) from error
    if settings.data is not None and settings.source != "directory":
        raise SettingsError(
            f"SAEBYEOK_DATA ({settings.data}) and SAEBYEOK_SOURCE ({settings.source}) name two places; set one of them"
        )
    # Absolute, since tasks and workers run in directories of their own.
    return settings.model_copy(
        update={
            "home": settings.home.expanduser().resolve(),
            "store": settings.store if "://" in settings.store or not settings.store else _absolute(settings.store),
            "data": _data(settings),
            "expectations": settings.expectations.expanduser().resolve(),
        }
    )


def _data(settings: Settings) -> Path | None:
    if settings.source != "directory":
        return settings.home.expanduser().resolve() / "data" / settings.source
    return settings.data.expanduser().resolve() if settings.data else None


def _explain(item: Mapping[str, Any]) -> str:
    name = "SAEBYEOK_" + "_".join(str(part) for part in item["loc"]).upper()
    return f"{name}: {item['msg']} (it is {item['input']!r})"


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def library_environment(home: Path) -> dict[str, str]:
    """Variables that keep every library's caches below `home` and its telemetry off."""
    return {
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "CUDA_CACHE_PATH": str(home / "cuda"),
        "DO_NOT_TRACK": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": str(home / "matplotlib"),
        # Threads that spin at a barrier starve Airflow, the service and each other of the cores.
        "OMP_WAIT_POLICY": "PASSIVE",
        # From 1.29 on, ONNX Runtime sends events from Linux too; only this, before its import, stops all of them.
        "ORT_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "true",
        "TORCHINDUCTOR_CACHE_DIR": str(home / "torchinductor"),
        "TORCH_HOME": str(home / "torch"),
        "TRITON_CACHE_DIR": str(home / "triton"),
        "WANDB_CACHE_DIR": str(home / "wandb" / "cache"),
        "WANDB_CONFIG_DIR": str(home / "wandb" / "config"),
        "WANDB_DATA_DIR": str(home / "wandb" / "data"),
        "WANDB_DIR": str(home / "wandb"),
        "WANDB_ERROR_REPORTING": "false",
        "XDG_CACHE_HOME": str(home / "cache"),
    }
