"""Settings: paths, addresses and limits, read once from the environment or a file, and passed down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline.config_file import BASE, ROOT, read_config
from pipeline.errors import SettingsError
from pipeline.loopback import is_service_url
from pipeline.texts import without_secrets


class Settings(BaseSettings):
    """All settings: from the environment (`SAEBYEOK_HOME`, `SAEBYEOK_STORE`, ...), else from the configuration file."""

    model_config = SettingsConfigDict(env_prefix="SAEBYEOK_", env_ignore_empty=True, frozen=True, extra="ignore")

    config: Path | None = Field(
        default=None,
        description='Configuration file (TOML) with any of these settings: `data = "files"`. Empty = saebyeok.toml in '
        "the checkout, or for an installed package in the current directory, if it exists.",
    )
    home: Path = Field(default=BASE / ".saebyeok", description="Directory for all files that are written.")
    store: str = Field(default="", description="Artifact store: a directory or s3://bucket/prefix. Empty = HOME/store.")
    data: Path | None = Field(default=None, description="Directory of the published files. Empty = the shipped sample.")
    source: Literal["directory", "download", "hub"] = Field(
        default="directory",
        description="Source of the published files: `directory` (SAEBYEOK_DATA), `download` (the publishers) "
        "or `hub` (Hugging Face). The last two write to HOME/data.",
    )
    profile: str = Field(default="embedded", description="Recipe profile: `embedded` or `full`.")
    schedule: str = Field(
        default="0 3 * * *", pattern=r"^\S+( \S+){4}$", description="Cron expression of `nightly_retrain`."
    )
    time_zone: str = Field(
        default="Asia/Seoul", description="Time zone of the schedules, and of the days of arrivals and runs."
    )
    gpu_queue: str = Field(default="gpu", min_length=1, description="Airflow queue of the tasks that use a GPU.")
    gpu_pool: str = Field(default="gpu", min_length=1, description="Airflow pool of the tasks that use a GPU.")
    keep_deployments: int = Field(default=7, ge=2, description="Number of newest deployments to keep for rollbacks.")
    keep_days: float = Field(default=2.0, ge=0, description="Minimum age in days of an artifact before it is deleted.")
    expectations: Path = Field(
        default=ROOT / "expectations", description="Directory of the Great Expectations project."
    )
    recipes: str = Field(
        default="",
        description="Directories with your own recipes, separated by `:`; of recipes with the same name, the last one "
        "counts. Empty = only the shipped recipes.",
    )
    service_url: str = Field(default="http://127.0.0.1:3000", description="URL of the BentoML service.")
    advertise_url: str = Field(
        default="",
        description="URL at which the deployer reaches this replica of the service. Empty = SAEBYEOK_SERVICE_URL, with "
        "the host name if it listens on all addresses.",
    )
    airflow_url: str = Field(default="http://127.0.0.1:8080", description="URL of Airflow's UI and REST API.")
    deploy_token: SecretStr | None = Field(
        default=None, description="Secret for staging releases. Empty = HOME/deploy.token."
    )
    deploy_seconds: float = Field(
        default=180.0,
        gt=0,
        description="Time limit in seconds for all service workers to load a release, and again to switch to it.",
    )
    deploy_quorum: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the live replicas of the service that must hold a release at the end of this time. "
        "1 = all.",
    )
    follow_seconds: float = Field(
        default=120.0,
        gt=0,
        description="Seconds without a successful look at the deployments after which a replica is not ready.",
    )
    alert_webhook: SecretStr | None = Field(
        default=None, description="URL that receives alerts as JSON. Empty = no alerts."
    )
    wandb_texts: bool = Field(
        default=False, description="Upload rows of the data to Weights & Biases, not only figures."
    )
    wandb_registry: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]*$",
        description="Weights & Biases Registry that champions are linked to, such as `model`. Empty = none.",
    )
    checkpoint_seconds: float = Field(
        default=300.0,
        gt=0,
        description="Minimum seconds between two copies of a training's checkpoints to a store outside HOME, from "
        "which another host can resume.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        description="CPU threads for training and inference. 0 = one per core "
        "(a single thread when training from scratch).",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Inference device: `auto` (a GPU if one works, else the CPU), `cpu` or `cuda`."
    )
    batch_tokens: int = Field(
        default=0,
        ge=0,
        description="Maximum tokens per inference batch and thread, padding included. "
        "0 = automatic (CPU 256, GPU 16,384).",
    )
    workers: int = Field(default=2, ge=1, le=64, description="Worker processes of the service.")

    api_keys: SecretStr | None = Field(
        default=None,
        description="API keys of the service, comma-separated, at least 16 characters each. To rotate a key, add the "
        "new one before removing the old one. Empty = no authentication.",
    )
    cors_origins: str = Field(
        default="",
        description="Origins of web pages that may call the service from a browser, comma-separated, such as "
        "https://app.example. `*` = any. Empty = none.",
    )
    max_inputs: int = Field(default=1_000, ge=1, description="Maximum texts or pairs per request. More = 422.")
    max_characters: int = Field(default=10_000, ge=1, description="Maximum characters per text. More = 422.")
    max_body_bytes: int = Field(
        default=2 * 1024**2, ge=1024, description="Maximum bytes of a body, as received and decompressed. More = 413."
    )
    max_concurrent: int = Field(
        default=0,
        ge=0,
        description="Maximum concurrent batches per worker process. 0 = one per thread.",
    )
    max_per_key: int = Field(
        default=0,
        ge=0,
        description="Maximum concurrent requests per API key and worker process. More = 429. 0 = no limit.",
    )
    max_queue: int = Field(default=256, ge=0, description="Maximum queued requests per worker process. More = 429.")
    request_seconds: float = Field(
        default=30.0, gt=0, description="Time limit in seconds per request. Body not received = 408, no answer = 504."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources; the first one that has a setting wins."""
        file = read_config()
        if unknown := sorted(file.values.keys() - cls.model_fields.keys()):
            raise SettingsError(
                f"{file.place(unknown[0])}: unknown setting `{unknown[0]}`; the settings are: "
                f"{', '.join(cls.model_fields)}"
            )
        return init_settings, env_settings, InitSettingsSource(settings_cls, file.values)

    @field_validator("time_zone", mode="after")
    @classmethod
    def _is_a_time_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError("it must be the name of a time zone, such as Asia/Seoul or UTC") from error
        return name

    @model_validator(mode="before")
    @classmethod
    def _strip(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Remove surrounding white space: the line feed of a secret that comes from a file or from `echo`."""
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
        return {name: value for name, value in stripped.items() if value != ""}

    @field_validator("service_url", "advertise_url", "airflow_url", mode="after")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        """Return the URL without slashes at its end."""
        if url and not is_service_url(url):
            raise ValueError("it must be a URL such as http://127.0.0.1:3000")
        return url.rstrip("/")

    @property
    def store_uri(self) -> str:
        """Return the URI of the artifact store: `store`, or a local directory below `home` if `store` is empty."""
        return self.store or str(self.home / "store")

    @property
    def deploy_token_file(self) -> Path:
        """Return the path of the file that holds the deploy token if `SAEBYEOK_DEPLOY_TOKEN` is not set."""
        return self.home / "deploy.token"


def load_settings() -> Settings:
    """Read the settings. Raises SettingsError, with variable (or file and line) and rule, if a value is invalid."""
    try:
        settings = Settings()
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(item) for item in error.errors())) from error
    if settings.data is not None and settings.source != "directory":
        raise SettingsError(
            f"SAEBYEOK_DATA ({settings.data}) and SAEBYEOK_SOURCE ({settings.source}) name two sources; set only one"
        )
    # Absolute, because tasks and workers run in other directories.
    return settings.model_copy(
        update={
            "home": settings.home.expanduser().resolve(),
            "store": settings.store if "://" in settings.store or not settings.store else _absolute(settings.store),
            "data": _data(settings),
            "expectations": settings.expectations.expanduser().resolve(),
            "recipes": os.pathsep.join(map(_absolute, filter(str.strip, settings.recipes.split(os.pathsep)))),
        }
    )


def _data(settings: Settings) -> Path | None:
    if settings.source != "directory":
        return settings.home.expanduser().resolve() / "data" / settings.source
    return settings.data.expanduser().resolve() if settings.data else None


def _explain(item: Mapping[str, Any]) -> str:
    setting = "_".join(str(part) for part in item["loc"])
    name, file = f"SAEBYEOK_{setting.upper()}", read_config()
    if setting in file.values and not os.environ.get(name, "").strip():
        name = f"{file.place(setting)}: `{setting}`"
    field = Settings.model_fields.get(setting)
    secret = field is not None and SecretStr in get_args(field.annotation)
    shown = "its value is a secret" if secret else f"it is {without_secrets(str(item['input']))!r}"
    return f"{name}: {item['msg']} ({shown})"


def _absolute(path: str) -> str:
    return str(Path(path.strip()).expanduser().resolve())


def library_environment(home: Path) -> dict[str, str]:
    """Return environment variables that keep the caches of all libraries below `home` and disable telemetry."""
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
        # Threads that spin at a barrier take the cores from Airflow, the service and each other.
        "OMP_WAIT_POLICY": "PASSIVE",
        # ONNX Runtime 1.29 and newer send events on Linux. Only this variable, set before the import, stops them all.
        "ORT_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "true",
        # It warns of every head that is not trained yet; `pipeline.models.build` checks the loaded weights itself.
        "TRANSFORMERS_VERBOSITY": "error",
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
