rule regrid:
    input:
        source=[receipt(s) for s, kind in (("simulate", "simulation"), ("fetch", "cds")) if kind == SETTINGS.source.kind],
    output:
        report(receipt("regrid"), caption="../report/regrid.rst", category="Data"),
    log:
        beside("logs", "regrid", ".log"),
    benchmark:
        beside("benchmarks", "regrid", ".tsv")
    threads: 16
    resources:
        mem_mb=6000,
        runtime="5d",
    conda:
        "../../environment.yml"
    message:
        "regrid: read the source, put it on the target grid and write the training store"
    params:
        options=OPTIONS,
    shell:
        "python -m pipeline regrid {params.options} --log {log:q}"


rule normals:
    input:
        store=receipt("regrid"),
    output:
        report(receipt("normals"), caption="../report/normals.rst", category="Data"),
    log:
        beside("logs", "normals", ".log"),
    benchmark:
        beside("benchmarks", "normals", ".tsv")
    threads: 8
    resources:
        mem_mb=6000,
        runtime="12h",
    conda:
        "../../environment.yml"
    message:
        "normals: means, spreads and the climatology of the training periods"
    params:
        options=OPTIONS,
    shell:
        "python -m pipeline normals {params.options} --log {log:q}"


# Not part of `all`: ask for them by name, e.g. `snakemake ... export`.
rule plan:
    output:
        SETTINGS.root / "plan-preprocess.json",
    log:
        SETTINGS.root / "logs" / "plan.log",
    threads: 2
    resources:
        mem_mb=4000,
        runtime="1h",
    conda:
        "../../environment.yml"
    message:
        "plan: what the regrid stage will read, write, need and take"
    params:
        options=OPTIONS,
    shell:
        "python -m pipeline plan {params.options} --log {log:q}"


rule export:
    input:
        store=receipt("regrid"),
    output:
        SETTINGS.paths.export / "export.json",
    log:
        beside("logs", "regrid", ".export.log"),
    threads: 2
    resources:
        mem_mb=4000,
        runtime="12h",
    conda:
        "../../environment.yml"
    message:
        "export: the training store as .npz files for ClimaX and climate-learn"
    params:
        options=OPTIONS,
    shell:
        "python -m pipeline export {params.options} --log {log:q}"
