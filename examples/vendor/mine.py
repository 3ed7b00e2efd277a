from distparity import Device


class Sim(Device):
    kind = "sim"  # torch's device type, and the name for --device
    packages = ("distparity_sim",)  # your code beside torch's
    refuses = {  # what it cannot do, by how it says so
        "getPinnedMemoryAllocator": "no pinned memory",
        "acquiring a stream from pool": "no pool of streams",
        r"Could not run 'aten::\w+' with arguments from the '(CPU|Sparsesim)'": "no such layout",
        "_foreach_norm cannot compute the infinity norm on an empty": "no norm of an empty shard",
    }

    def load(self) -> None:  # what registers the device with torch
        from distparity_sim import register

        register()

    def backend(self) -> str:  # what init_process_group is given
        return "simccl"
