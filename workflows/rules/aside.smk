# Not part of `all`: requested by name, e.g. `snakemake ... export`.
rule plan:
    output:
        SETTINGS.root / f"plan-{PLAN}.json",
    log:
        SETTINGS.root / "logs" / "plan.log",
    threads: 2
    resources:
        mem_mb=4000,
        runtime="1h",
    conda:
        "../../environment.yml"
    message:
        "plan: what making the store will read and write, the memory and disk it needs, and how long it takes"
    params:
        options=OPTIONS,
    shell:
        "python -m pipeline plan {params.options} --log {log:q}"


if "regrid" in HAS:

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
