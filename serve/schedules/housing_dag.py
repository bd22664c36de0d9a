"""Airflow: monitor the prediction log every night, and retrain when an alarm was raised.

Copy to the DAGs folder of an Airflow 3 with apache-airflow-providers-papermill and -standard, in
whose environment Housing is installed, and set HOUSING_ROOT (and the store's address) for its
workers. The notebook is run by the papermill operator, into a notebook a night; the verdict is
read from it, and what follows is `housing retrain`, with all that it refuses and writes down.
"""

from datetime import datetime, timedelta
from pathlib import Path

from airflow.providers.papermill.operators.papermill import PapermillOperator
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import dag, task

PROJECT = Path("/opt/housing")
EXECUTED = str(PROJECT / "reports" / "airflow" / "05_monitoring_{{ ds }}.ipynb")


@dag(
    schedule="15 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 1, "retry_delay": timedelta(minutes=10)},
    tags=["housing"],
)
def housing_monitoring() -> None:
    """Monitor, and answer an alarm."""
    folder = BashOperator(task_id="folder", bash_command=f"mkdir -p {Path(EXECUTED).parent}")
    monitor = PapermillOperator(
        task_id="monitor",
        input_nb=str(PROJECT / "notebooks" / "05_monitoring.ipynb"),
        output_nb=EXECUTED,
        parameters={"source": "log", "since": "30d", "batch_hours": 24.0},
        kernel_name="python3",
    )

    @task.short_circuit
    def alarm(executed: str) -> bool:
        """Keep and tell the alarm; whether there is one."""
        from housing_lib import alarms, reports, verdict

        decided = verdict.from_record(reports.read_record(Path(executed))["verdict"])
        if decided.alarming:
            alarms.raise_alarm(decided, Path(executed).parent)
        return decided.alarming

    # Exit code 3 says that the gate held the challenger: decided, and no failure.
    retrain = BashOperator(
        task_id="retrain",
        cwd=str(PROJECT),
        bash_command=".venv/bin/housing retrain log || [ $? = 3 ]",
        execution_timeout=timedelta(hours=6),
        retries=0,
    )
    folder >> monitor >> alarm(EXECUTED) >> retrain


housing_monitoring()
