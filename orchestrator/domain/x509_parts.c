#include "domain/x509_parts.h"

bool x509_add_name_entry(X509_NAME *name, int nid, const char *text)
{
    return X509_NAME_add_entry_by_NID(name, nid, V_ASN1_UTF8STRING,
                                      (const unsigned char *)text, -1, -1, 0) == 1;
}

bool x509_add_dns_name(GENERAL_NAMES *names, const char *dns_name)
{
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();

    if (name != NULL && text != NULL && ASN1_STRING_set(text, dns_name, -1) == 1) {
        GENERAL_NAME_set0_value(name, GEN_DNS, text);
        text = NULL;
        if (sk_GENERAL_NAME_push(names, name) > 0)
            return true;
    }
    ASN1_IA5STRING_free(text);
    GENERAL_NAME_free(name);
    return false;
}

bool x509_add_dns_names(GENERAL_NAMES *names, const struct config_list *dns_names,
                        size_t first)
{
    for (size_t i = first; i < dns_names->count; i++) {
        if (!x509_add_dns_name(names, dns_names->items[i]))
            return false;
    }
    return true;
}

int x509_append_written(BIO *bio, struct buf *ret, struct err *err)
{
    const char *text = "";
    size_t len = (size_t)BIO_get_mem_data(bio, &text);

    return buf_append(ret, text, len, err);
}
