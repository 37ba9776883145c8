rule score:
    input:
        store=receipt("regrid"),
        normals=receipt("normals"),
        forecast=receipt("forecast"),
        twins=receipt("twins") if SETTINGS.paths.twins else [],
        baselines=receipt("baselines") if SETTINGS.paths.trained else [],
        compared=[
            path
            for entry in SETTINGS.evaluation.compare
            for path in (entry.path, manifest_path(Path(entry.path)))
            if path == entry.path or path.exists()
        ],
    output:
        report(receipt("score"), caption="../report/score.rst", category="Skill"),
    log:
        beside("logs", "score", ".log"),
    benchmark:
        beside("benchmarks", "score", ".tsv")
    threads: 8
    resources:
        mem_mb=6000,
        runtime="12h",
    conda:
        "../../environment.yml"
    message:
        "score: the model and the baselines on common init times"
    params:
        options=OPTIONS,
    shell:
        "python -m pipeline score {params.options} --log {log:q}"


rule report:
    input:
        scores=receipt("score"),
    output:
        receipt=receipt("report"),
        page=report(SETTINGS.paths.report, caption="../report/report.rst", category="Skill"),
    log:
        beside("logs", "report", ".log"),
    benchmark:
        beside("benchmarks", "report", ".tsv")
    threads: 2
    resources:
        mem_mb=4000,
        runtime="1h",
    conda:
        "../../environment.yml"
    message:
        "report: figures and one self-contained page"
    params:
        options=OPTIONS,
    shell:
        "python -m pipeline report {params.options} --log {log:q}"
