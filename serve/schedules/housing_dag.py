"""Airflow: monitor the prediction log every night, and retrain when an alarm was raised.

Housing keeps its own environment, because Airflow's packages are older. On the worker:

    git clone ... /opt/housing && make -C /opt/housing setup
    /opt/housing/.venv/bin/python -m ipykernel install --prefix AIRFLOW_ENVIRONMENT --name housing

Then copy this file to the DAGs folder of an Airflow 3 that has apache-airflow-providers-papermill
and -standard, and set HOUSING_ROOT (and the store's address) for its workers. The papermill
operator runs the notebook, in the kernel just made, into a notebook a night; the verdict is read
from it, and what follows is `housing retrain`, with all that it refuses and writes down.
"""

from datetime import datetime, timedelta
from pathlib import Path

from airflow.providers.papermill.operators.papermill import PapermillOperator
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import dag, task

PROJECT = Path("/opt/housing")
PYTHON = str(PROJECT / ".venv" / "bin" / "python")
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
        kernel_name="housing",
    )

    @task.external_python(python=PYTHON, expect_airflow=False)
    def alarm(executed: str) -> bool:
        """Keep and tell the alarm; whether there is one."""
        from pathlib import Path

        from housing_lib import alarms, reports, verdict

        decided = verdict.from_record(reports.read_record(Path(executed))["verdict"])
        if decided.alarming:
            alarms.raise_alarm(decided, Path(executed))
        return decided.alarming

    @task.short_circuit
    def raised(alarming: bool) -> bool:
        """Go on only if there is an alarm."""
        return alarming

    # Exit code 3 says that the gate held the challenger: decided, and no failure.
    retrain = BashOperator(
        task_id="retrain",
        cwd=str(PROJECT),
        bash_command=".venv/bin/housing retrain log || [ $? = 3 ]",
        execution_timeout=timedelta(hours=6),
        retries=0,
    )
    decided = alarm(EXECUTED)
    folder >> monitor >> decided
    raised(decided) >> retrain


housing_monitoring()
