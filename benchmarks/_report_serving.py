"""Words and targets of the service, for the page of ``benchmarks.report``."""

TITLE = "A service"

WORDS = (
    "`serve` against a hand-written FastAPI handler of the same pipeline, the "
    "demonstration checkpoint and small PNG files. Both use torch with its own number "
    "of threads; clients run on the same cores. Each request holds one image. Times "
    "are of all requests; requests a second are those of the best turn, ratios the "
    "medians over turns. Processor time counts all processes of a side. *One pass* is "
    "one call of `predict_proba` in a process without a service, so the service also "
    "pays for HTTP, and for the clients beside it."
)

TARGETS = [
    (
        "Service, 64 clients: requests a second, ours / plain",
        ("serving", "ratios", "64 clients", "ours / plain"),
        "at least",
        2.0,
    ),
    (
        "Service, 1 client: requests a second, ours / plain",
        ("serving", "ratios", "1 client", "ours / plain"),
        "at least",
        1.0,
    ),
    (
        "Service, 64 clients: requests a second / images a second of one pass",
        ("serving", "one pass of many images", "ours with 64 clients / one pass"),
        "at least",
        0.8,
    ),
    (
        "Service, memory after 20,000 requests / after 4,000",
        ("serving", "memory", "last / first thousands"),
        "at most",
        1.05,
    ),
]
