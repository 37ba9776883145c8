rule train:
    input:
        store=receipt("regrid"),
        normals=receipt("normals"),
    output:
        report(receipt("train"), caption="../report/train.rst", category="Model"),
    log:
        beside("logs", "train", ".log"),
    benchmark:
        beside("benchmarks", "train", ".tsv")
    threads: 16
    resources:
        mem_mb=6000,
        runtime="5d",
    conda:
        "../../environment.yml"
    message:
        "train: fit the model; resumes at its last checkpoint"
    params:
        options=OPTIONS,
        launch=launch(SETTINGS.training.layout.world_size),
    shell:
        "python {params.launch} train {params.options} --log {log:q}"


rule forecast:
    input:
        store=receipt("regrid"),
        normals=receipt("normals"),
        model=receipt("train"),
    output:
        report(receipt("forecast"), caption="../report/forecast.rst", category="Model"),
    log:
        beside("logs", "forecast", ".log"),
    benchmark:
        beside("benchmarks", "forecast", ".tsv")
    threads: 16
    resources:
        mem_mb=6000,
        runtime="12h",
    conda:
        "../../environment.yml"
    message:
        "forecast: forecasts from every init time of the test period"
    params:
        options=OPTIONS,
        launch=launch(SETTINGS.training.layout.world_size),
    shell:
        "python {params.launch} forecast {params.options} --log {log:q}"
