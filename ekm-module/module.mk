# Builds the nginx modules of this directory as dynamic modules for Debian's
# nginx: against the headers of the package nginx-dev, with the configure flags
# of the packaged binary, as dh_nginx does it. The including Makefile gives
# BUILD, VARIANT, CET_CFLAGS and CET_LDFLAGS and finds the modules in
# NGINX_MODULES. Needs: apt-get install nginx-dev.

ekm_dir := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
ekm_build := $(BUILD)/nginx-modules
ekm_modules := ngx_http_ekm_module ngx_http_live_chain_module
NGINX_MODULES := $(ekm_modules:%=$(BUILD)/%.so)

# Where the packages of another release are unpacked: nginx-dev and the headers of its OpenSSL.
NGINX_ROOT ?=
ekm_root := $(if $(NGINX_ROOT),$(abspath $(NGINX_ROOT)))
NGINX_SRC ?= $(ekm_root)/usr/share/nginx/src

# The module is loaded into a release nginx, so no sanitizer in any variant.
ekm_cflags := -g -fPIC -fstack-protector-strong -fstack-clash-protection $(CET_CFLAGS) \
              -Wformat -Werror=format-security
ekm_ldflags := -fPIC -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack $(CET_LDFLAGS)
ifeq ($(VARIANT),cover)
ekm_cflags += -O0 --coverage
ekm_ldflags += --coverage
else ifneq ($(filter debug asan,$(VARIANT)),)
ekm_cflags += -Og
else
ekm_cflags += -O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3
endif
ifneq ($(ekm_root),)
ekm_root_libs := $(wildcard $(ekm_root)/usr/lib/*-linux-gnu*)
ekm_cflags += -isystem $(ekm_root)/usr/include \
              $(ekm_root_libs:$(ekm_root)/usr/lib/%=-isystem $(ekm_root)/usr/include/%)
# configure links programs with libraries that may be for a later C library than the compiler's.
ekm_ldflags += $(ekm_root_libs:%=-L%) -Wl,--allow-shlib-undefined
endif

# nginx's configure and its Makefile work in the current directory, hence links
# to the sources in a scratch directory. The files of dpkg, and an unpacked root,
# change with every version of nginx-dev, the sources keep old dates.
$(ekm_build)/objs/Makefile: $(ekm_dir)/config $(ekm_dir)/module.mk \
		$(if $(ekm_root),$(ekm_root)/../version,$(wildcard /var/lib/dpkg/info/nginx-dev.list))
	@test -x $(NGINX_SRC)/configure && test -r $(NGINX_SRC)/conf_flags || { \
	  echo "$(NGINX_SRC) has no nginx sources to build the modules with:" \
	    "apt-get install nginx-dev" >&2; exit 1; }
	@echo "  CONFIG  $(ekm_build)"
	@rm -rf $(ekm_build) && mkdir -p $(ekm_build)
	@cd $(ekm_build) && ln -s $(NGINX_SRC)/* . && \
	bash -c '. ./conf_flags && ./configure "$${NGX_CONF_FLAGS[@]}" \
	  --builddir=objs \
	  --with-cc="$(CC)" \
	  --with-cc-opt="$(ekm_cflags)" \
	  --with-ld-opt="$(ekm_ldflags)" \
	  --add-dynamic-module="$(abspath $(ekm_dir))"' >configure.log 2>&1 || { \
	  cat configure.log >&2; rm -f objs/Makefile; exit 1; }

$(ekm_build)/objs/%.so: $(ekm_dir)/%.c $(ekm_build)/objs/Makefile
	@$(MAKE) -s -C $(ekm_build) -f objs/Makefile objs/$(@F) \
	  >$(ekm_build)/$*.log 2>&1 || { cat $(ekm_build)/$*.log >&2; exit 1; }

# install(1) unlinks the old file, which a running nginx may have mapped.
$(NGINX_MODULES): $(BUILD)/%.so: $(ekm_build)/objs/%.so
	@echo "  NGXMOD  $@"
	@install -m 644 $< $@
