import mlflow.sklearn
import skops.io
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

types = skops.io.get_untrusted_types(file="model.skops")
mlflow.sklearn.save_model(  # or log_model, with name= in place of path=
    skops.io.load("model.skops", trusted=types),
    path="mlflow_model",
    serialization_format="skops",
    skops_trusted_types=types,
    pyfunc_predict_fn="predict_proba",
    signature=ModelSignature(Schema([ColSpec("binary", "image")])),
    pip_requirements=["mlflow", "sk-medsiglip[dicom,skops]"],
)
