# One rule for each stage of this experiment, generated from the table of its workload (pipeline/<workload>/stages.py).
for STAGE in SETTINGS.stages:

    rule:
        name:
            STAGE.name
        input:
            [receipt(name) for name in STAGE.needs if name in HAS],
            compared_forecasts() if STAGE.name == "score" else [],
        output:
            report(receipt(STAGE.name), caption=caption(STAGE), category=STAGE.category),
            *pages(STAGE),
        log:
            beside("logs", STAGE.name, ".log"),
        benchmark:
            beside("benchmarks", STAGE.name, ".tsv")
        threads: STAGE.resources.threads
        resources:
            mem_mb=STAGE.resources.mem_mb,
            runtime=STAGE.resources.runtime,
        conda:
            "../../environment.yml"
        message:
            f"{STAGE.name}: {STAGE.summary}"
        params:
            options=OPTIONS,
            stage=STAGE.name,
            launch=launch(SETTINGS.training.layout.world_size if STAGE.on_ranks else 1),
        shell:
            "python {params.launch} {params.stage} {params.options} --log {log:q}"
