from typing import Annotated

import skops.io
from fastapi import FastAPI, File, HTTPException

from sk_medsiglip.exceptions import ImageReadError

types = skops.io.get_untrusted_types(file="model.skops")
pipe = skops.io.load("model.skops", trusted=types)
app = FastAPI()


@app.post("/predict")
def predict(image: Annotated[bytes, File()]) -> list[float]:
    try:
        return pipe.predict_proba([image])[0].tolist()
    except ImageReadError as error:
        raise HTTPException(422, error.reason) from None
